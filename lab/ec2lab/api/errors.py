"""The error codes and messages of EC2 and of S3.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from moto.ec2.exceptions import EC2ClientError


def error(code: str, message: str) -> Any:
    """An exception that moto turns into EC2's error document."""
    return EC2ClientError(code, message)


def document(code: str, message: str, request_id: str) -> bytes:
    """The error as EC2 writes it."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Response><Errors><Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error></Errors>"
        f"<RequestID>{escape(request_id)}</RequestID></Response>"
    ).encode()


class S3Error(Exception):
    """A refusal of S3: its code, the HTTP status, its message, and more elements of the document."""

    def __init__(self, code: str, status: int, message: str, more: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.status, self.message, self.more = code, status, message, dict(more or {})

    def document(self, resource: str, request_id: str) -> bytes:
        elements = {
            "Code": self.code,
            "Message": self.message,
            **self.more,
            "Resource": resource,
            "RequestId": request_id,
        }
        inside = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in elements.items())
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inside}</Error>'.encode()
