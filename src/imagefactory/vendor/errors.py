"""The error of all that concerns images of others."""

from __future__ import annotations

from imagefactory.errors import PackageError


class VendorError(PackageError):
    """An image that others have built could not be found, fetched or verified."""
