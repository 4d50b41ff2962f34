from vllm._facts import keeps_to


@keeps_to("vllm.inputs:tokens_input")
def tokens_input(prompt_token_ids, prompt=None, cache_salt=None):
    return {"type": "token", "prompt_token_ids": prompt_token_ids}
