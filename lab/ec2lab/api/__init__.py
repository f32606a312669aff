"""The API: moto's EC2, ELBv2, Auto Scaling, IAM, STS, SSM and S3, mended where they differ from AWS.

`server` answers requests, `store` keeps the state across restarts, `translate` says what machines and networks follow
from it. One lock (`server.Api.lock`) guards moto's objects, which know no threads.
"""
