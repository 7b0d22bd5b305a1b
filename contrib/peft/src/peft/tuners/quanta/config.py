# Copyright 2026-present the HuggingFace Inc. team.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

import re
from dataclasses import dataclass, field
from typing import Literal, Optional, Union

from peft.config import PeftConfig
from peft.utils import PeftType

from .dims import check_dims, check_pattern


# the key of `dims` for all modules that no other key matches
REST = ".*"


@dataclass
class QuantaConfig(PeftConfig):
    """
    This is the configuration class to store the configuration of a [`QuantaModel`].

    Args:
        dims (`Optional[Union[list[int], dict[str, Optional[list[int]]]]]`):
            The sizes of the axes into which the width of a layer is split, e.g. `[16, 8, 8, 4]` for 4096. The layer
            gets one gate for each pair of axes, with `(d_m * d_n)**2` parameters for a pair of the sizes `d_m` and
            `d_n`: few large axes mean many parameters and a more expressive update. If `None`, the sizes are chosen
            for each layer: the fewest axes, at least three, of nearly the same size. To set the sizes by layer, pass a
            dictionary: its keys are regular expressions for the end of a module's name (`"q_proj"`,
            `"[0-3].mlp.up_proj"`), `".*"` stands for all modules that no other key matches, and the value `None` means
            that the sizes are chosen. The order of the keys does not matter: no two may give one module different
            sizes.
        parameter_budget (`Optional[int]`):
            The maximum number of trainable parameters per layer if the sizes are chosen.
        rectangular (`Literal["gate", "pad"]`):
            How layers whose input and output widths differ are adapted. With `"gate"`, the sizes multiply to the
            larger width, and one gate on the first axis changes its size; the larger width must be a multiple of the
            smaller one, and `dims[0]` a multiple of their ratio. With `"pad"`, which works for all widths, the input
            and the output are padded with zeros or truncated to the product of the sizes.
        target_modules (`Optional[Union[list[str], str]]`):
            The names of the modules to apply the adapter to. If this is specified, only the modules with the specified
            names will be replaced. When passing a string, a regex match will be performed. When passing a list of
            strings, either an exact match will be performed or it is checked if the name of the module ends with any
            of the passed strings. If this is specified as 'all-linear', then all linear/Conv1D modules are chosen (if
            the model is a PreTrainedModel, the output layer excluded). If this is not specified, modules will be
            chosen according to the model architecture. If the architecture is not known, an error will be raised -- in
            this case, you should specify the target modules manually.
        exclude_modules (`Optional[Union[list[str], str]]`):
            The names of the modules to not apply the adapter. When passing a string, a regex match will be performed.
            When passing a list of strings, either an exact match will be performed or it is checked if the name of the
            module ends with any of the passed strings.
        dropout (`float`):
            The dropout probability on the input of the adapter.
        init_weights (`bool`):
            Whether the adapter starts as the identity. If `False`, the trained circuit and its frozen copy start with
            different random values, which is only useful for testing.
        layers_to_transform (`Optional[Union[list[int], int]]`):
            The layer indices to transform. If a list of ints is passed, it will apply the adapter to the layer indices
            that are specified in this list. If a single integer is passed, it will apply the transformations on the
            layer at this index.
        layers_pattern (`Optional[Union[list[str], str]]`):
            The layer pattern name, used only if `layers_to_transform` is different from `None`. This should target the
            `nn.ModuleList` of the model, which is often called `'layers'` or `'h'`.
        modules_to_save (`Optional[list[str]]`):
            List of modules apart from adapter layers to be set as trainable and saved in the final checkpoint.
    """

    dims: Optional[Union[list[int], dict[str, Optional[list[int]]]]] = field(
        default=None,
        metadata={
            "help": (
                "The sizes of the axes into which the width of a layer is split, e.g. [16, 8, 8, 4] for 4096, or a "
                "dictionary of them by module name. Chosen for each layer if None."
            )
        },
    )
    parameter_budget: Optional[int] = field(
        default=None,
        metadata={"help": "The maximum number of trainable parameters per layer if the sizes are chosen."},
    )
    rectangular: Literal["gate", "pad"] = field(
        default="gate",
        metadata={
            "help": (
                "How layers whose input and output widths differ are adapted: 'gate' changes the size of the first "
                "axis, 'pad' pads with zeros or truncates to the product of the sizes."
            )
        },
    )
    target_modules: Optional[Union[list[str], str]] = field(
        default=None,
        metadata={
            "help": (
                "List of module names or regex expression of the module names to replace with QuanTA. "
                "For example, ['q', 'v'] or '.*decoder.*(SelfAttention|EncDecAttention).*(q|v)$'. "
                "This can also be a wildcard 'all-linear' which matches all linear/Conv1D layers except the output "
                "layer."
            )
        },
    )
    exclude_modules: Optional[Union[list[str], str]] = field(
        default=None,
        metadata={"help": "List of module names or regex expression of the module names to exclude from QuanTA."},
    )
    dropout: float = field(default=0.0, metadata={"help": "The dropout probability on the input of the adapter."})
    init_weights: bool = field(
        default=True,
        metadata={
            "help": (
                "Whether the adapter starts as the identity. Don't change this setting, except if you know exactly "
                "what you're doing."
            )
        },
    )
    layers_to_transform: Optional[Union[list[int], int]] = field(
        default=None,
        metadata={
            "help": (
                "The layer indexes to transform, is this argument is specified, PEFT will transform only the layers "
                "indexes that are specified inside this list. If a single integer is passed, PEFT will transform only "
                "the layer at this index."
            )
        },
    )
    layers_pattern: Optional[Union[list[str], str]] = field(
        default=None,
        metadata={
            "help": (
                "The layer pattern name, used only if `layers_to_transform` is different to None and if the layer "
                "pattern is not in the common layers pattern. This should target the `nn.ModuleList` of the model, "
                "which is often called `'layers'` or `'h'`."
            )
        },
    )
    modules_to_save: Optional[list[str]] = field(
        default=None,
        metadata={
            "help": (
                "List of modules apart from QuanTA layers to be set as trainable and saved in the final checkpoint. "
                "For example, in Sequence Classification or Token Classification tasks, the final layer "
                "`classifier/score` are randomly initialized and as such need to be trainable and saved."
            )
        },
    )

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType.QUANTA
        self.target_modules = (
            set(self.target_modules) if isinstance(self.target_modules, list) else self.target_modules
        )
        self.exclude_modules = (
            set(self.exclude_modules) if isinstance(self.exclude_modules, list) else self.exclude_modules
        )
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError("When `layers_pattern` is specified, `layers_to_transform` must also be specified. ")
        if self.rectangular not in ("gate", "pad"):
            raise ValueError(f"`rectangular` must be 'gate' or 'pad', got {self.rectangular!r}.")
        if self.parameter_budget is not None and self.parameter_budget < 1:
            raise ValueError(f"`parameter_budget` must be a positive integer, got {self.parameter_budget}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` must be at least 0 and less than 1, got {self.dropout}.")
        if isinstance(self.dims, dict):
            for pattern, dims in self.dims.items():
                check_pattern(pattern)
                check_dims(f"dims[{pattern!r}]", dims)
        else:
            check_dims("dims", self.dims)

    def dims_for(self, name: str) -> Optional[tuple[int, ...]]:
        """The configured axis sizes of a module; `None` if they are to be chosen."""
        if not isinstance(self.dims, dict):
            return check_dims("dims", self.dims)
        matching = [pattern for pattern in self.dims if pattern != REST and re.fullmatch(rf"(.*\.)?({pattern})", name)]
        # not the first match: saving sorts the keys
        found = {check_dims(pattern, self.dims[pattern]) for pattern in matching or [REST] if pattern in self.dims}
        if len(found) > 1:
            raise ValueError(
                f"Several patterns of `dims` match module {name!r} and differ: {', '.join(map(repr, matching))}. "
                "Make them exclude each other."
            )
        if not found:
            raise ValueError(
                f"No pattern of `dims` matches module {name!r}, the patterns are {', '.join(map(repr, self.dims))}. "
                f"Add one, or {REST!r}: None to choose the sizes for the rest."
            )
        return found.pop()
