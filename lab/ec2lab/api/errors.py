"""EC2's own error codes and messages.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

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
