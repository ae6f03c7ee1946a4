"""Requests to the page and its HTTP API that do not have the right types."""

from __future__ import annotations

from typing import Any

import gradio as gr


class Page(gr.Blocks):
    """Blocks that answer a request with values of the wrong types with a sentence, and log nothing of it."""

    async def preprocess_data(self, *args: Any, **settings: Any) -> list[Any]:
        try:
            return await super().preprocess_data(*args, **settings)
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:  # of many types, from pydantic, Gradio and Python
            message = "a value of the request has the wrong type; the API page describes each of them"
            raise gr.Error(message, print_exception=False) from error
