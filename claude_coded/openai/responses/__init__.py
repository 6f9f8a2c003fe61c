"""The Responses API: `request` reads what is asked, `output` tells what is answered, both in terms of `turn`.

Of the kinds of tools and items, functions and custom tools are the client's, in namespaces or not. Tools that
OpenAI's servers run are not offered, and items that tell of them are left out, both by name. Reasoning that a
client sends back is left out, too: the model's thinking is no part of the history.
"""
