"""Small models of the transformers library, built from a config, run on rapt as on their own attention."""

import pytest
import rapt.transformers
import torch
import transformers

rapt.transformers.register()

SIZES = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "gemma2": lambda: transformers.Gemma2Config(  # softcap, and a window in every other layer
        **SIZES, query_pre_attn_scalar=8, attn_logit_softcapping=2.0, sliding_window=7
    ),
    "gpt_oss": lambda: transformers.GptOssConfig(  # sinks, and windows
        **SIZES, sliding_window=7, num_local_experts=4, num_experts_per_tok=2
    ),
}


def models(name):
    """The model on its own attention, and the same on rapt."""
    torch.manual_seed(0)
    own = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in own.parameters():  # what is empty or zero at first has a part in it too
            parameter.normal_(0, 0.3)
    on_rapt = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation="rapt").eval()
    on_rapt.load_state_dict(own.state_dict())
    return own, on_rapt


@pytest.fixture(params=CONFIGS)
def pair(request):
    return models(request.param)


def prompts(padded):
    tokens = torch.randint(1, 97, (2, 19), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    if padded:
        mask[0, :6] = 0  # on the left, as for generation
    return {"input_ids": tokens, "attention_mask": mask}


def calls_of_rapt(monkeypatch):
    calls = []
    real = rapt.transformers.attention
    monkeypatch.setattr(
        rapt.transformers, "attention", lambda q, *rest, **more: calls.append(q.shape[2]) or real(q, *rest, **more)
    )
    return calls


def assert_close(got, want):
    torch.testing.assert_close(got, want, atol=2e-4 * want.abs().max().item(), rtol=1e-3)


@pytest.mark.parametrize("padded", [False, True])
def test_logits_of_a_prompt(pair, padded, monkeypatch):
    own, on_rapt = pair
    calls = calls_of_rapt(monkeypatch)
    with torch.no_grad():
        want, got = own(**prompts(padded)).logits, on_rapt(**prompts(padded)).logits
    assert calls == [19, 19]
    real = prompts(padded)["attention_mask"].bool()  # what a padded token computes is never looked at
    assert_close(got[real], want[real])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generation_with_a_cache(pair, padded, cache, monkeypatch):
    own, on_rapt = pair
    options = {
        "max_new_tokens": 12,
        "do_sample": False,
        "cache_implementation": None if cache == "dynamic" else cache,
        "return_dict_in_generate": True,
        "output_logits": True,
        "disable_compile": True,
        "pad_token_id": 0,
        "eos_token_id": None,
    }
    want = own.generate(**prompts(padded), **options)
    calls = calls_of_rapt(monkeypatch)
    got = on_rapt.generate(**prompts(padded), **options)
    assert calls == [19, 19] + [1, 1] * 11
    assert torch.equal(got.sequences, want.sequences)
    for ours, theirs in zip(got.logits, want.logits, strict=True):
        assert_close(ours, theirs)


def test_a_prompt_in_two_pieces():
    own, on_rapt = models("llama")
    tokens = prompts(False)["input_ids"]
    with torch.no_grad():
        want = own(tokens).logits
        first = on_rapt(tokens[:, :8], use_cache=True)
        second = on_rapt(tokens[:, 8:], cache=first.past_key_values, use_cache=True)
    assert_close(torch.cat([first.logits, second.logits], 1), want)


def test_gradients_of_training(pair):
    own, on_rapt = (model.train() for model in pair)
    batch = prompts(False)
    for model in (own, on_rapt):
        model(**batch, labels=batch["input_ids"]).loss.backward()
    for (name, want), got in zip(own.named_parameters(), on_rapt.parameters(), strict=True):
        assert (got.grad is None) == (want.grad is None), name
        if want.grad is not None:
            assert_close(got.grad, want.grad)


def test_attention_dropout_of_training():
    config = CONFIGS["llama"]()
    config.attention_dropout = 0.5
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="rapt").train()
    tokens = prompts(False)["input_ids"]

    def logits():
        torch.manual_seed(1)
        return model(tokens).logits

    assert torch.equal(logits(), logits())
    assert not torch.equal(logits(), model(tokens).logits)
    assert not torch.equal(logits(), model.eval()(tokens).logits)
