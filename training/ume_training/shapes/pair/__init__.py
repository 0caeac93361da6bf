"""The bundled pair `ume-tiny`: a small Reasoner and a small Embedder, trained from scratch on Shapes."""
