"""What all settings groups have in common."""

from typing import ClassVar

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class Group(BaseSettings):
    """Frozen, closed, never showing a value in an error.

    Values come from the loader only: it reads the environment and the `.env` file itself,
    because a fault must name its source and a misspelt name must not pass in silence.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True
    )

    KEY_FILES: ClassVar[frozenset[str]] = frozenset()
    """Fields that name a key's file (`file:` or `credential:`) and never hold the key."""
    SIGNING_KEYS: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where a signing key is, in one of the ways of `settings.keys`."""
    SECRETS: ClassVar[frozenset[str]] = frozenset()
    """Fields whose value is never shown; their `file:` must be closed to others."""

    @classmethod
    def env_name(cls, field: str) -> str:
        """Return the environment variable of *field*."""
        return f"{cls.model_config['env_prefix']}{field.upper()}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """See `BaseSettings.settings_customise_sources`."""
        return (init_settings,)
