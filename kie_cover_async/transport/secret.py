"""The API key, and how it is kept out of what is said about an exchange."""

import re

_HIDDEN = "***"

# A shorter one is a placeholder, and would be found inside ids and URLs that are to be kept.
_SHORTEST = 8
_NOWHERE = "(?!)"


class Secret:
    """A key that is shown by the header which carries it, and by nothing else."""

    def __init__(self, key: str) -> None:
        self.header: str = f"Bearer {key}"
        # As it is, as JSON may write it, and as the repr of a repr does.
        written = "".join(rf"(?:\\{{0,4}}{re.escape(c)}|(?i:\\u00{ord(c):02x}))" for c in key)
        self._text = re.compile(written if len(key) >= _SHORTEST else _NOWHERE)
        self._bytes = re.compile(self._text.pattern.encode())
        self._plain, self._plain_bytes = key, key.encode()

    def mask(self, text: str) -> str:
        """The text, and stars where it echoes the key."""
        # Without a backslash it can stand there only as it is, and looking for that costs little.
        if "\\" not in text and self._plain not in text:
            return text
        return self._text.sub(_HIDDEN, text)

    def mask_body(self, body: bytes) -> bytes:
        """The body, and stars where it echoes the key."""
        if b"\\" not in body and self._plain_bytes not in body:
            return body
        return self._bytes.sub(_HIDDEN.encode(), body)
