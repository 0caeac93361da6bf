"""The bundled pair `ume-tiny`: a Reasoner and an Embedder of a few million parameters, trained from scratch on Shapes."""
