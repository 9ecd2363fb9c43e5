"""The table of forms: credentials that are known by how they look, whatever stands before them.

The ideas are those of public rule sets (gitleaks, detect-secrets): the prefixes
that providers give their keys so that they are found in texts.

Every pattern is linear in the text: no repetition contains another one, and
what begins with a repetition begins at the start of a word.
"""

import re
from base64 import b64decode
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

#: What only begins a word, by provider.
_PREFIXES: Final = (
    # This platform's API keys, stream tickets, console codes and sessions
    r"sg[ckot]_[A-Za-z0-9_-]{6,}",
    # Amazon Web Services (key ids), GitHub, GitLab
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}",
    r"gh[pousr]_[A-Za-z0-9_]{16,}",
    r"github_pat_[A-Za-z0-9_]{16,}",
    r"gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|soat|ffct)-[A-Za-z0-9_.-]{12,}",
    # Slack, and addresses that post without any other credential
    r"xox[abceoprs]-[A-Za-z0-9-]{8,}",
    r"xapp-\d-[A-Za-z0-9-]{8,}",
    r"hooks\.slack\.com/services/[A-Za-z0-9/]{8,}",
    r"discord(?:app)?\.com/api/webhooks/[A-Za-z0-9/_-]{8,}",
    r"[a-z0-9-]{1,60}\.webhook\.office\.com/[A-Za-z0-9/@_-]{8,}",
    # Hugging Face; not the names of its libraries
    (
        r"hf_(?!(?:transfer|xet|token|home|hub|model|dataset|datasets|cache|config|transformers"
        r"|device|quantizer|datasetname|modelname|tokenizer|trainer|pipeline|endpoint)\b)"
        r"[A-Za-z0-9]{8,}"
    ),
    r"api_org_[A-Za-z0-9]{16,}",
    # OpenAI, Anthropic, OpenRouter and those that took their form over; Stripe
    r"sk-(?:proj|ant|or|svcacct|admin|lf|None)-[A-Za-z0-9_-]{8,}",
    r"sk-[A-Za-z0-9]{16,}",
    r"[rs]k_(?:live|test)_[A-Za-z0-9]{8,}",
    r"whsec_[A-Za-z0-9+/=]{16,}",
    # Google, Azure, NVIDIA
    r"AIza[A-Za-z0-9_-]{20,}",
    r"ya29\.[A-Za-z0-9_-]{16,}",
    r"GOCSPX-[A-Za-z0-9_-]{12,}",
    r"1//0[A-Za-z0-9_-]{20,}",
    r"[A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{20,}",
    r"nvapi-[A-Za-z0-9_-]{16,}",
    # Places that models, data and experiments are kept at
    r"r8_[A-Za-z0-9]{16,}",
    r"gsk_[A-Za-z0-9]{16,}",
    r"pplx-[A-Za-z0-9]{16,}",
    r"xai-[A-Za-z0-9]{16,}",
    r"pcsk_[A-Za-z0-9_]{16,}",
    r"lsv2_(?:pt|sk)_[A-Za-z0-9_]{16,}",
    r"dapi[0-9a-f]{24,}",
    r"local-[0-9a-f]{40}",
    r"wandb_v1_[A-Za-z0-9_]{16,}",
    # Stores of secrets, of packages and of images
    r"hv[sbr]\.[A-Za-z0-9_-]{12,}",
    r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{12,}",
    r"npm_[A-Za-z0-9]{20,}",
    r"pypi-[A-Za-z0-9_-]{16,}",
    r"cio[A-Za-z0-9]{32}",
    r"AGE-SECRET-KEY-1[A-Z0-9]{16,}",
    r"(?:dp|dt0[a-z]\d{2})\.(?:pt|st|ct|sa|scim|audit)?\.?[A-Za-z0-9_.-]{20,}",
    r"AKCp[A-Za-z0-9]{10,}",
    # Hosting, monitoring, messages, payments
    r"do[opr]_v1_[A-Za-z0-9]{16,}",
    r"gl(?:sa|c)_[A-Za-z0-9_=+/-]{16,}",
    r"NRAK-[A-Z0-9]{12,}",
    r"sntry[su]_[A-Za-z0-9_=+/.-]{16,}",
    r"sbp_[A-Za-z0-9]{20,}",
    r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.-]{12,}",
    r"pul-[0-9a-f]{20,}",
    r"(?:ntn|figd|fo1|fm2|shp(?:at|ca|pa|ss)|lin_api|rnd|tskey-[a-z]+)[_-][A-Za-z0-9_-]{16,}",
    r"SG\.[A-Za-z0-9_-]{12,}\.[A-Za-z0-9_-]{12,}",
    r"SK[0-9a-f]{32}",
    r"key-[0-9a-f]{32}",
    r"PMAK-[A-Za-z0-9-]{16,}",
    r"AT(?:ATT3|CTT3|BB)[A-Za-z0-9_=-]{12,}",
    r"sq0[a-z]{3}-[A-Za-z0-9_-]{16,}",
    r"HRKU-[A-Za-z0-9_-]{16,}",
    r"(?:bot)?\d{8,10}:AA[A-Za-z0-9_-]{32,}",
    # JWS and JWE in compact form (RFC 7515, RFC 7516): a header always begins with '{"'
    r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*",
    # What passwords are stored as
    r"\$(?:2[abxy]|5|6|y|argon2(?:id|i|d)|scrypt|pbkdf2-sha\d+)\$[A-Za-z0-9./$=,+-]{16,}",
    r"SCRAM-SHA-(?:1|256)\$[A-Za-z0-9+/=:$]{16,}",
    r"pbkdf2_sha\d+\$[A-Za-z0-9+/=$]{16,}",
)

#: Programs that take a password as `-p` or `-P`.
_PROGRAMS: Final = (
    "mysql|mysqldump|mysqladmin|mariadb|sshpass|docker|podman|buildah|skopeo|helm|oras|oc|az|mongo"
    "|mongosh|mongodump|cqlsh|influx|rabbitmqadmin|sqlcmd|bcp|smbclient|rpcclient|kinit"
)
#: By what a text must have in it, in small letters, to be searched: each with groups that are the
#: credential, of which one matches. What stands around it may be shown.
_AROUND: Final = (
    # Private keys: to their end, or to that of the text
    (
        "private key",
        r"(?P<pem>-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?!-----END )[\s\S])*+(?:-----END [A-Z0-9 ]{1,40}-----)?)",
    ),
    # The password before the host in an authority (RFC 3986, 3.2.1), which may have any character
    # where it was not encoded; or whoever stands there alone, who may be a token
    (
        "://",
        r"\b[A-Za-z][A-Za-z0-9+.-]{0,30}+://(?:[^\s/?#@:]{0,256}+:"
        r"(?:(?P<url>[^\s/?#]{1,256})(?=@)|(?P<unencoded>[^\s@]{1,256}+)(?=@))"
        r"|(?P<user>[^\s/?#@:]{1,256}+)(?=@))",
    ),
    # The same without a scheme, as Go's MySQL driver has it; neither a digest nor a version
    (
        "@",
        r"(?<![\w.:/@+-])[\w.+-]{1,64}+:(?P<password>[^\s:@/,;\"'()]{3,128}+)"
        r"(?=@(?!sha\d)[\w.(\[-])",
    ),
    # Oracle's thin driver
    ("thin:", r"\bthin:[\w.-]{1,64}/(?P<oracle>[^\s@/]{1,128}+)(?=@)"),
    # HTTP (RFC 6750, RFC 7617, AWS)
    (
        "bearer",
        r"(?i:\bbearer\s{1,4}(?:token\s{1,4})?)(?P<bearer>[A-Za-z0-9._~+/=-]{6,})",
    ),
    ("basic", r"(?i:\bbasic\s{1,4})(?P<basic>[A-Za-z0-9+/]{8,}={0,2})"),
    ("signature=", r"\bSignature=(?P<aws>[A-Za-z0-9/+=%-]{8,})"),
    ("credential=", r"\bCredential=(?P<aws_id>[A-Za-z0-9/+=%-]{8,})"),
    # SQL
    ("password", r"(?i:\bpassword\s{1,4}(?:=\s{0,4})?)'(?P<sql>[^'\n]{1,256})'"),
    (
        "identified",
        r"(?i:\bidentified\s{1,4}(?:with\s{1,4}\w{1,40}\s{1,4})?by\s{1,4}(?:password\s{1,4})?)"
        r"['\"](?P<identified>[^'\"\n]{1,256})['\"]",
    ),
    # Arguments of programs that name no password: `-p`, `-P` and `-w`, each with its value or
    # before it, and a user's name with a password
    (
        " -p",
        rf"\b(?:{_PROGRAMS})\b[^\n]{{0,200}}?\s-[pP]\s?(?P<short>[^\s=-]\S{{2,127}})",
    ),
    (" -w", r"\bldap\w{0,20}\b[^\n]{0,200}?\s-w\s?(?P<ldap>[^\s=-]\S{2,127})"),
    (
        "curl",
        r"\bcurl\b[^\n]{0,200}?\s-u\s{0,4}['\"]?[\w.@-]{1,64}:(?P<curl>[^\s'\"]{1,128})",
    ),
    ("--user", r"\s--user[=\s]\s{0,4}['\"]?[\w.@-]{1,64}:(?P<user_flag>[^\s'\"]{1,128})"),
    ("redis-cli", r"\bredis-cli\b[^\n]{0,200}?\s-a\s{1,4}(?P<redis>\S{3,128})"),
    ("login", r"(?i:\blogin\s{1,4}\S{1,64}\s{1,4}password\s{1,4})(?P<netrc>\S{3,128})"),
    (
        "sql",
        r"\b(?:sqlplus|sqlldr|sqlcl)\b[^\n]{0,100}?\s[\w.-]{1,64}/(?P<sqlplus>[^\s@/]{1,128}+)",
    ),
    # The last argument of a call that logs in, and a command that does
    (
        "(",
        r"(?i:\b(?:bind|login|log_in|authenticate|auth|sign_?in|set_?password))\("
        r"[^()\n]{0,200}?['\"](?P<argument>[^'\"\n]{3,128})['\"]\s?\)",
    ),
    ("auth ", r"\bAUTH\s(?P<auth>[^\s'\"]{6,128})"),
    ("auth ", r"\bAUTH\s[\w-]{1,64}\s(?P<auth_of_user>[^\s'\"]{6,128})"),
    ("login", r"(?i:\blogin\s{1,4})(?P<login>[A-Za-z0-9_.=-]{16,128})"),
    ("pass ", r"\brequirepass\s{1,4}(?P<requirepass>[^\s'\"]{3,128})"),
    ("masterauth", r"\bmasterauth\s{1,4}(?P<masterauth>[^\s'\"]{3,128})"),
    ("user ", r"(?i:\buser\s{1,4})[\w.-]{1,64}/(?P<user_and>[^\s@/]{6,128})"),
    # A line of .pgpass
    (
        ":",
        r"(?<![\w.:/-])[\w.*-]{1,253}+:(?:\d{2,5}|\*):[\w*.-]{1,64}+:[\w.-]{1,64}+:"
        r"(?P<pgpass>[^\s:]{3,128}+)",
    ),
    # XML
    (
        "</",
        r"(?i:<(?:\w{1,40}:)?(?:\w{0,40}(?:password|passwd|secret|token|apikey|accesskey))"
        r"(?:\s[^<>]{0,200})?>)(?P<xml>[^<>\s][^<>]{2,255})(?=</)",
    ),
)

_PREFIXED: Final = re.compile(rf"(?<![A-Za-z0-9_])(?:{'|'.join(_PREFIXES)})")
_ENCLOSED: Final = tuple((hint, re.compile(pattern)) for hint, pattern in _AROUND)
#: As long a word as the shortest of the prefixes' forms.
_LONG_WORD: Final = re.compile(r"[A-Za-z0-9/+=_.~:$-]{10}")

#: Texts without any order, which may be keys of any kind: letters of both sizes and digits,
#: which follow on each other as in nothing that people write.
_RANDOM: Final = re.compile(
    r"(?<![A-Za-z0-9+/_=.-])(?:[A-Za-z0-9]{24,128}+|[A-Za-z0-9+/]{40}+|[A-Za-z0-9+/]{43,172}+={1,2})"
    r"(?![A-Za-z0-9+/_=-]|\.\w)"
)
#: Least part of neighbours that are of different kinds, by whether there are several digits: of a
#: random text two thirds are, of a name in CamelCase a third.
_CHANGES: Final = {True: 0.35, False: 0.55}


def find_forms(text: str) -> Iterator[tuple[int, int]]:
    """Find what has the form of a credential: its places, in no order; they may overlap."""
    lowered = text.lower()
    for hint, pattern in _ENCLOSED:
        if hint not in lowered:
            continue
        for match in pattern.finditer(text):
            assert match.lastgroup is not None, "each has the group that is found"
            if _CHECKS.get(match.lastgroup, _anything)(match[match.lastgroup]):
                yield match.span(match.lastgroup)
    if _LONG_WORD.search(text) is None:
        return
    for match in _PREFIXED.finditer(text):
        yield match.span()
    for match in _RANDOM.finditer(text):
        if is_random(match[0]):
            yield match.span()


def _anything(_value: str) -> bool:
    return True


def _is_no_word(value: str) -> bool:
    """Whether a text is none that a sentence goes on with: "bearer authentication"."""
    return any(each.isdigit() for each in value) or not (value.islower() or value.istitle())


def _is_basic(value: str) -> bool:
    """Whether this is a name, a colon and a password in Base64 (RFC 7617)."""
    try:
        return b":" in b64decode(value + "=" * (-len(value) % 4), validate=True)
    except ValueError:
        return False


#: What else must be true of a group's text.
_CHECKS: Final = {
    "basic": _is_basic,
    **dict.fromkeys(("bearer", "auth", "auth_of_user", "login", "user_and"), _is_no_word),
}


def is_random(word: str) -> bool:
    """Whether a word has capitals, small letters and digits in no order."""
    if word.islower():
        return False
    kinds = ["d" if each.isdigit() else "U" if each.isupper() else "l" for each in word]
    if len({*kinds}) < 3:
        return False
    changes = sum(one != other for one, other in pairwise(kinds))
    return changes >= _CHANGES[kinds.count("d") > 1] * (len(kinds) - 1)
