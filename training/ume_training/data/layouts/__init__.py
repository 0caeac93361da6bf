"""Published training sets, read as they lie on disk after download; nothing is fetched."""

from ume_training.data.layouts.base import LEFT_OUT, Layout, Source
from ume_training.data.layouts.convert import LAYOUTS, Converted, convert

__all__ = ["LAYOUTS", "LEFT_OUT", "Converted", "Layout", "Source", "convert"]
