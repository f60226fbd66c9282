"""What `ocirt doctor` looks at. Each check is a function that gives its findings and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

# WARNING: some of what pods may ask for will not work; BAD: pods will not run
OK, WARNING, BAD = "ok", "warning", "bad"


@dataclass(frozen=True)
class Finding:
    """How something is. subject: what was looked at; hint: what to do, "" where it is as it should be."""

    subject: str
    level: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.level:8}{self.subject}: {self.message}"
        return f"{text}\n{'':8}→ {self.hint}" if self.hint else text

    def document(self) -> dict[str, str]:
        """As JSON has it."""
        return {"subject": self.subject, "level": self.level, "message": self.message, "hint": self.hint}
