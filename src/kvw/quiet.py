"""Keeping the libraries' own bars and advice out of the terminal."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Silence the progress bars and the advice to developers of the libraries, in programs of kvw.

    This imports transformers and with it torch: what can be found out about a command and its files is found before.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    quiet_torch()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # peft asks transformers for what is going to be called otherwise.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.|peft\.")


def quiet_torch() -> None:
    """Silence what torch tells its developers while torchao is imported, as transformers does where it is installed."""
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
