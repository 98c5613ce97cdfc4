"""An S3 server of the tests' own on loopback: real requests, real signatures, kept in memory."""

import logging

import pytest
from pyarrow import fs


@pytest.fixture(scope="module")
def bucket():
    """URI of an empty bucket; credentials and endpoint come from the environment."""
    server_module = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "tests")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fs.FileSystem.from_uri("s3://sweeps?allow_bucket_creation=true")[0].create_dir("sweeps")
        yield "s3://sweeps"
    server.stop()
