"""A fake Google Cloud Storage on a port of this machine, with a bucket `bucket`, in memory."""

from __future__ import annotations

import contextlib
import sys
import time

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects


def _with_generation(handler):
    """TensorStore takes an object's generation from a header that the emulator does not send."""

    def handle(request, response, storage, *args, **kwargs):
        place = request.params["bucket_name"], request.params["object_id"]
        with contextlib.suppress(NotFound):  # the handler answers that
            response["x-goog-generation"] = storage.get_file_obj(*place)["generation"]
        return handler(request, response, storage, *args, **kwargs)

    return handle


if __name__ == "__main__":
    objects.download = _with_generation(objects.download)
    objects.get = _with_generation(objects.get)
    # Only now: it takes the handlers as it is imported.
    from gcp_storage_emulator.server import create_server

    create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").start()
    print("ready", flush=True)
    time.sleep(600)
