"""A chat as a model's own template writes it, rendered by Jinja2 with the environment that such templates expect.

The engine layer embeds this file and runs it with `python -c`. Its arguments, joined, are a JSON object: "template",
"messages" and "variables" (bos_token and the like). The last line it prints is a JSON object with one member:
"text"; "error", what is wrong with the template; or "missing", what this Python lacks.
"""
import json
import sys
from datetime import datetime


def answer(**member):
    print(json.dumps(member))
    sys.exit()


try:
    from jinja2 import TemplateError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError as error:
    answer(missing=str(error))


class Generation(Extension):
    """{% generation %} marks what the assistant wrote, for training; it changes nothing in the text."""
    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def raise_exception(message):
    raise TemplateError(message)


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    """Jinja's own filter would escape < and > for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def render(template, messages, variables):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=[Generation, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment.from_string(template).render(messages=messages, tools=None, documents=None,
                                                    add_generation_prompt=True, **variables)


request = json.loads("".join(sys.argv[1:]))
try:
    text = render(**request)
except Exception as error:  # a template may fail in any way that Python code can
    answer(error=f"{type(error).__name__}: {error}")
answer(text=text)
