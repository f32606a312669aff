"""S3 as AWS guards it, in front of moto, which believes everybody.

`requests` takes a request apart, `callers` finds who signed it and what policies let them do, `documents` refuses what
moto would take, and `contents` receives objects into files. https://docs.aws.amazon.com/AmazonS3/latest/API/Welcome.html
"""
