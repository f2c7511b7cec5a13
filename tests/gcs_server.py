"""A fake Google Cloud Storage on a port of this machine, with a bucket `bucket`, in memory."""

from __future__ import annotations

import contextlib
import sys
import time
from http import HTTPStatus

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


def _of_generation(handler):
    """The emulator gives the newest content to a request for another generation, which is gone."""

    def handle(request, response, storage, *args, **kwargs):
        wanted = request.query.get("generation")
        place = request.params["bucket_name"], request.params["object_id"]
        with contextlib.suppress(NotFound):  # the handler answers that
            if wanted and storage.get_file_obj(*place)["generation"] != wanted[0]:
                response.status = HTTPStatus.NOT_FOUND
                return None
        return handler(request, response, storage, *args, **kwargs)

    return handle


def _with_conditions(handler):
    """The emulator does not look at the generation that a request asks an object to have, 0: none.

    It answers one request at a time, so that what is true here still is in the handler.
    """

    def handle(request, response, storage, *args, **kwargs):
        expected = request.query.get("ifGenerationMatch")
        name = request.params.get("object_id") or request.query.get("name", [None])[0]
        if expected and name:
            try:
                found = storage.get_file_obj(request.params["bucket_name"], name)["generation"]
            except NotFound:
                found = "0"
            if found != expected[0]:
                response.status = HTTPStatus.PRECONDITION_FAILED
                return None
        return handler(request, response, storage, *args, **kwargs)

    return handle


if __name__ == "__main__":
    objects.download = _of_generation(_with_generation(objects.download))
    objects.get = _with_generation(objects.get)
    objects.insert = _with_conditions(objects.insert)
    objects.delete = _with_conditions(objects.delete)
    # Only now: it takes the handlers as it is imported.
    from gcp_storage_emulator.server import create_server

    create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").start()
    print("ready", flush=True)
    time.sleep(600)
