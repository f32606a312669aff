"""The API: moto's EC2, ELBv2, Auto Scaling, IAM, STS, SSM and S3, patched where they differ from AWS.

`server` answers requests, `store` keeps the state across restarts, `translate` derives the machines and networks from
it. One lock (`server.Api.lock`) guards moto's objects, which are not thread-safe.
"""
