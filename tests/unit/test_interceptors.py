"""The interceptors around every method."""

from google.protobuf.empty_pb2 import Empty

from headgate_server.core.errors import InvalidRequest
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.interceptors import errors
from headgate_server.rpc.pipeline.method import Method, Public, Unary


async def _answer(call: Call, request: Empty) -> Empty:
    return request


METHOD = Method(
    service="test.v1.Service", name="Do", request=Empty, response=Empty, access=Public(), kind=Unary(_answer)
)


async def test_an_error_does_not_keep_its_request() -> None:
    """A traceback would hold the frames of the call, and with them the request, until the garbage collector runs."""
    error = InvalidRequest("That is wrong.")

    async def wrong(call: Call) -> bytes:
        raise error

    call = Call("/test", {})
    await errors(METHOD, wrong)(call)
    assert call.failure is not None
    assert error.__traceback__ is None
