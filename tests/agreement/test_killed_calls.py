"""What is remembered between calls, should one be killed (FUNCTION KILL) at any instruction."""

import re
from pathlib import Path

import pytest
from lupa.lua51 import LuaRuntime

KEYS = (Path(__file__).parents[2] / "lua/lib/keys.lua").read_text()
# A name is asked for, another one by a call that is killed after so many instructions, and both again.
ASK = """
local wrong = {}
local function kill_after(instructions, call)
  pcall(function()
    debug.sethook(function() debug.sethook() error('killed') end, '', instructions)
    call()
    debug.sethook()
  end)
end
for instructions = 1, 60 do
  for _, other in ipairs({ { 'b:', 'x' }, { 'a:', 'y' }, { 'b:', 'y' } }) do
    keys.NAME('a:', 'x')
    kill_after(instructions, function() return keys.NAME(other[1], other[2]) end)
    local first, second = keys.NAME('a:', 'x'), keys.NAME(other[1], other[2])
    if first ~= fresh().NAME('a:', 'x') or second ~= fresh().NAME(other[1], other[2]) then
      wrong[#wrong + 1] = instructions
    end
  end
end
return table.concat(wrong, ' ')
"""


@pytest.mark.parametrize("name", re.findall(r"^M\.(\w+) = ", KEYS, re.MULTILINE))
def test_a_killed_call_leaves_no_key_under_the_name_of_another(name: str) -> None:
    load = f"local function fresh() {KEYS} end local keys = fresh() "
    assert LuaRuntime().execute(load + ASK.replace("NAME", name)) == ""
