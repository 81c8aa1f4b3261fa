"""Images that others have built: fetched, verified by what they publish, unpacked."""
