"""Checks the arguments of a factory, the only argument: they are literals, and nothing is called.

Standard output has the reason why not.
"""

import ast
import sys


def refusal(text):
    code = f"f({text})"
    call = ast.parse(code, "APP", "eval").body
    # A repeated name is no error of the parser.
    compile(code, "APP", "eval")
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return "these are no arguments of one call"
    if any(keyword.arg is None for keyword in call.keywords):
        return "`**` is not the name of an argument"
    for node in call.args + [keyword.value for keyword in call.keywords]:
        try:
            ast.literal_eval(node)
        except ValueError:
            return f"`{ast.unparse(node)}` is not a literal"
    return None


try:
    REASON = refusal(sys.argv[1])
except Exception as error:  # The message of Python names the cause.
    REASON = str(error)
print(REASON or "", end="")
