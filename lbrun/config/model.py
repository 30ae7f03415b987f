"""The section ``model``: what is asked for, and how."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lbrun.config.base import FilePath, Integer, Number, OneLine, Section

Backend = Literal["vllm", "sglang", "openai"]
RequestFormatName = Literal["completions", "chat", "sglang_generate"]
ScenarioName = Literal["offline", "server", "interactive"]


class SamplingSettings(Section):
    """How the server picks tokens. A key at null is not sent, and the server's own default holds."""

    temperature: Number | None = Field(default=None, ge=0, le=10, description="0 is greedy decoding")
    top_p: Number | None = Field(
        default=None, gt=0, le=1, description="nucleus sampling: share of probability kept"
    )
    top_k: Integer | None = Field(default=None, ge=-1, description="tokens kept; -1 keeps all")
    min_p: Number | None = Field(
        default=None, ge=0, le=1, description="least probability, relative to the best"
    )
    seed: Integer | None = Field(default=None, ge=0, lt=2**63, description="seed of the server's sampling")
    max_tokens: Integer | None = Field(default=None, ge=1, le=2**31 - 1, description="most output tokens")
    min_tokens: Integer | None = Field(default=None, ge=0, le=2**31 - 1, description="fewest output tokens")
    repetition_penalty: Number | None = Field(default=None, gt=0, le=10, description="1 is none")
    presence_penalty: Number | None = Field(default=None, ge=-2, le=2, description="0 is none")
    frequency_penalty: Number | None = Field(default=None, ge=-2, le=2, description="0 is none")
    ignore_eos: bool | None = Field(
        default=None, description="true: go on to max_tokens whatever is generated"
    )
    stop: tuple[str, ...] | None = Field(default=None, description="texts that end an answer")

    def values(self) -> dict[str, Any]:
        """The keys that are sent, in the order of their declaration."""
        return {key: value for key, value in self if value is not None}


class ChatSettings(Section):
    """How a sample becomes chat messages, for the request format chat."""

    input: Literal["text", "messages", "product"] = Field(
        default="text",
        description="what chat requests are made of: a prompt, ready-made messages, or a product's fields",
    )
    system_prompt: str | None = Field(default=None, description="the system message; null sends none")
    system_prompt_file: FilePath | None = Field(
        default=None, description="a text file with the system message, used in place of system_prompt"
    )
    template: str = Field(
        default="{title}\n{description}\n{categories}",
        min_length=1,
        description="the user message, with {title}, {description} and {categories} for the product's fields",
    )
    template_file: FilePath | None = Field(
        default=None, description="a text file with the user message, used in place of template"
    )
    categories: Literal["lines", "list"] = Field(
        default="lines",
        description="how {categories} writes a product's list: one a line, or as Python writes a list, "
        "which is how the reference prompt has it",
    )
    guided_json_schema: FilePath | None = Field(
        default=None,
        description="a JSON schema that the server must make its answers follow; null: no guided decoding",
    )
    image_position: Literal["before", "after"] = Field(
        default="after", description="the image's place, seen from the user message"
    )


class OfficialSizes(Section):
    """How many samples MLPerf's official data sets have."""

    performance_samples: Integer | None = Field(
        default=None, ge=1, description="samples of the performance set"
    )
    accuracy_samples: Integer | None = Field(default=None, ge=1, description="samples of the accuracy set")


class LatencyLimits(Section):
    """Latency limits of one scenario, for models that LoadGen's own mlperf.conf has none for."""

    ttft_limit_ms: Integer | None = Field(
        default=None, ge=1, description="time to first token, at the percentile"
    )
    tpot_limit_ms: Integer | None = Field(
        default=None, ge=1, description="time per output token, at the percentile"
    )
    latency_limit_ms: Integer | None = Field(
        default=None, ge=1, description="whole answer, at the percentile"
    )


class ModelSettings(Section):
    """Which model is asked, in which request format, with which sampling."""

    name: OneLine = Field(
        min_length=1, description="the benchmark's name, as in MLPerf's results: llama3.1-8b"
    )
    mlperf_name: OneLine = Field(min_length=1, description="the name in LoadGen's mlperf.conf: llama3_1-8b")
    mlperf_name_interactive: OneLine | None = Field(
        default=None, description="the name in mlperf.conf for scenario=interactive; null: as mlperf_name"
    )
    hf_id: OneLine = Field(
        min_length=1,
        description="the model's id, which servers list unless servers.served_model says otherwise",
    )
    request_format: RequestFormatName | None = Field(
        default=None, description="how samples are asked for; null: by the pool's backend, from model.formats"
    )
    formats: dict[Backend, RequestFormatName] = Field(
        default_factory=dict, description="the request format for each backend"
    )
    prompt: Literal["token_ids", "text"] = Field(
        default="token_ids", description="what a prompt is sent as, where the request format allows both"
    )
    payload: Literal["token_ids", "text"] = Field(
        default="token_ids", description="what LoadGen's accuracy log holds of each answer"
    )
    vocab_size: Integer | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="token ids of the data set must be smaller; null: as the tokenizer or the servers say",
    )
    tokenizer: FilePath | None = Field(
        default=None,
        description="a tokenizer.json that re-encodes the answers of servers that return only text",
    )
    bundled_data: Literal["llama3_1_8b", "gpt_oss_120b", "qwen3vl"] | None = Field(
        default=None, description="the data shipped with lbrun that is used where dataset.path is null"
    )
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    sampling_accuracy: SamplingSettings = Field(
        default_factory=SamplingSettings,
        description="with mode=accuracy these replace the values of sampling",
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="further fields of each request's JSON body, as the server knows them",
    )
    chat: ChatSettings = Field(default_factory=ChatSettings)
    official: OfficialSizes = Field(default_factory=OfficialSizes)
    limits: dict[ScenarioName, LatencyLimits] = Field(
        default_factory=dict, description="latency limits by scenario, where mlperf.conf has none"
    )
