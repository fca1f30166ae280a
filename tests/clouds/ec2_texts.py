"""The names, tags and tokens that EC2 accepts; moto takes any.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSecurityGroup.html
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions
"""

from __future__ import annotations

import re

from tests.clouds.ec2_moto import Parameters, Refusal

_PLAIN = r"[A-Za-z0-9 ._:/()#,@[\]+=&;{}!$*-]{1,255}"
_RULES = {
    r"GroupName": rf"(?!sg-){_PLAIN}",
    r"GroupDescription": _PLAIN,
    r"KeyName": r"[ -~]{1,255}",
    r"ClientToken": r"[!-~]{1,64}",
    r"(.+\.)?Tag\.\d+\.Key": r"(?!aws:).{1,128}",
    r"(.+\.)?Tag\.\d+\.Value": r".{0,256}",
}


def check(parameters: Parameters) -> None:
    """Raise Refusal for the first that EC2 would not take."""
    for name, text in parameters.items():
        for parameter, value in _RULES.items():
            if re.fullmatch(parameter, name) and not re.fullmatch(value, text, re.DOTALL):
                raise Refusal("InvalidParameterValue", f"Value ({text}) for parameter {name} is invalid.")
