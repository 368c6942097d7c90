"""The vault: an encrypted file of the originals, apart from the redacted records."""

import base64
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from cryptography.fernet import Fernet, InvalidToken

KEY_VARIABLE = "FTLIB_VAULT_KEY"
_HEADER = b"ftlib vault 1 "


class Vault:
    """
    Keeps the originals of redacted records, encrypted and authenticated (Fernet).

    Use it in a ``with`` statement, or call `save`: the file is then written whole, for
    its owner's eyes only (mode 0600).

    Parameters
    ----------
    path : str or Path
        The file; read if it exists.
    key : str, optional
        What `make_key` gave. Else the environment variable ``FTLIB_VAULT_KEY``, or the
        entry ``ftlib``, ``vault`` of keyring, when that is installed.
    """

    def __init__(self, path: str | Path, key: str | None = None) -> None:
        self.path = Path(path)
        key = key or os.environ.get(KEY_VARIABLE) or _ask_keyring()
        if not key:
            raise ValueError(
                f"the vault has no key: set {KEY_VARIABLE} to one from Vault.make_key()"
            )
        try:
            self._fernet = Fernet(key)
        except (ValueError, TypeError):
            # From None: the cause would show the key.
            raise ValueError(
                "this is no vault key: use what Vault.make_key() gave"
            ) from None
        mark = hashlib.sha256(_HEADER + key.encode()).hexdigest()[:16]
        self._header = _HEADER + mark.encode() + b"\n"
        self._records: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            self._records = self._read()

    def __repr__(self) -> str:
        """Show the file and its size; neither key nor originals."""
        return f"Vault({str(self.path)!r}, {len(self._records)} records)"

    def __enter__(self) -> Self:
        """Give the vault itself."""
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Write the file, unless the block failed."""
        if kind is None:
            self.save()

    @staticmethod
    def make_key() -> str:
        """
        Make a new key; keep it apart from the vault and out of notebooks.

        Returns
        -------
        str
            44 characters.

        Examples
        --------
        >>> len(Vault.make_key())
        44
        """
        return Fernet.generate_key().decode()

    def add(
        self,
        originals: Mapping[str, str],
        before: Mapping[str, str],
        after: Mapping[str, str],
        vault_id: str | None = None,
    ) -> str:
        """
        Keep the originals of one record, if they give back its fields exactly.

        Parameters
        ----------
        originals : mapping of str to str
            What stands for what: placeholder or surrogate to original.
        before, after : mapping of str to str
            The fields before redaction and after it.
        vault_id : str, optional
            Of a record redacted before.

        Returns
        -------
        str
            The record's id in this vault.

        Raises
        ------
        ValueError
            When the originals do not give back the fields, or the id is not known.
        """
        for field, text in before.items():
            if _put_back(after[field], originals) != text:
                raise ValueError(
                    f"the surrogates in {field!r} cannot be undone: use placeholders"
                )
        entry = self._find(vault_id) if vault_id else {"fields": [], "originals": {}}
        vault_id = vault_id or f"v{len(self._records) + 1:06d}"
        fields = sorted({*entry["fields"], *before})
        merged = {**entry["originals"], **originals}
        self._records[vault_id] = {"fields": fields, "originals": merged}
        return vault_id

    def restore(
        self, record: Mapping[str, Any] | str, vault_id: str | None = None
    ) -> dict[str, Any] | str:
        """
        Put the originals back.

        Parameters
        ----------
        record : mapping or str
            A redacted record, or any text with its placeholders, such as a response.
        vault_id : str, optional
            Whose originals; a record has it as ``vault_id``.

        Returns
        -------
        dict or str
            The record as it was, or the text with the originals.

        Raises
        ------
        ValueError
            When no id is given, or this vault does not have it.
        """
        if isinstance(record, str):
            return _put_back(record, self._find(vault_id)["originals"])
        entry = self._find(vault_id or record.get("vault_id"))
        restored = {name: x for name, x in record.items() if name != "vault_id"}
        for field in entry["fields"]:
            restored[field] = _put_back(record[field], entry["originals"])
        return restored

    def originals(self) -> list[str]:
        """
        Give all originals kept, for a search after leaks.

        Returns
        -------
        list of str
            Each once, sorted.
        """
        found = {x for e in self._records.values() for x in e["originals"].values()}
        return sorted(found)

    def save(self) -> None:
        """Write the file: whole, or not at all."""
        token = self._fernet.encrypt(json.dumps(self._records).encode())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp's files are 0600 from the start, and replace is atomic.
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".vault-")
        try:
            with os.fdopen(handle, "wb") as file:
                # Raw: in base64 some bits could change unseen.
                file.write(self._header + base64.urlsafe_b64decode(token))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _read(self) -> dict[str, dict[str, Any]]:
        """Read and decrypt the file."""
        header, _, token = self.path.read_bytes().partition(b"\n")
        if header.startswith(_HEADER) and header + b"\n" != self._header:
            raise ValueError(
                f"this key does not open {self.path}: use the key it was made with"
            )
        try:
            if header + b"\n" != self._header:
                raise InvalidToken
            return json.loads(self._fernet.decrypt(base64.urlsafe_b64encode(token)))
        except InvalidToken:
            raise ValueError(
                f"{self.path} is damaged or was tampered with: take it from a backup"
            ) from None

    def _find(self, vault_id: str | None) -> dict[str, Any]:
        """Give the entry of a record."""
        if vault_id not in self._records:
            raise ValueError(
                f"{self.path} has no record {vault_id!r}: give the vault_id that "
                "redact added to the record"
            )
        return self._records[vault_id]


def _put_back(text: str, originals: Mapping[str, str]) -> str:
    """Replace what stands for an original by it; the longest first."""
    if not originals:
        return text
    parts = sorted(originals, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, parts)), lambda m: originals[m[0]], text)


def _ask_keyring() -> str | None:
    """Ask the system's keyring, when its package is installed."""
    try:
        import keyring
    except ImportError:
        return None
    return keyring.get_password("ftlib", "vault")
