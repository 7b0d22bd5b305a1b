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

"""
Fine-tunes a causal language model with QuanTA on the column "text" of a dataset.

python quanta_finetuning.py --base_model meta-llama/Llama-3.2-1B --data_path timdettmers/openassistant-guanaco
"""

import argparse

import torch
from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from peft import QuantaConfig, get_peft_model


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_model", default="meta-llama/Llama-3.2-1B", help="Name or path of the model")
    parser.add_argument(
        "--data_path",
        default="timdettmers/openassistant-guanaco",
        help="Name or path of the dataset, with a split train",
    )
    parser.add_argument("--output_dir", default="quanta-adapter", help="Folder for the adapter")
    parser.add_argument(
        "--dims", type=int, nargs="+", help="Axis sizes, whose product is the width; chosen for each layer by default"
    )
    parser.add_argument("--parameter_budget", type=int, help="The most parameters of a layer if its sizes are chosen")
    parser.add_argument("--target_modules", nargs="+", help="Modules to adapt; those of the architecture by default")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--num_epochs", type=float, default=1)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--cutoff_len", type=int, default=512, help="Tokens of a text that are kept")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    tokenizer = AutoTokenizer.from_pretrained(args.base_model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(args.base_model, dtype=torch.bfloat16 if bf16 else torch.float32)
    config = QuantaConfig(
        task_type="CAUSAL_LM",
        dims=args.dims,
        parameter_budget=args.parameter_budget,
        target_modules=args.target_modules,
    )
    model = get_peft_model(model, config)
    model.print_trainable_parameters()

    dataset = load_dataset(args.data_path, split="train")
    dataset = dataset.map(
        lambda rows: tokenizer(rows["text"], truncation=True, max_length=args.cutoff_len),
        batched=True,
        remove_columns=dataset.column_names,
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=args.output_dir,
            num_train_epochs=args.num_epochs,
            per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            bf16=bf16,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=dataset,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    trainer.train()
    model.save_pretrained(args.output_dir)
    tokenizer.save_pretrained(args.output_dir)


if __name__ == "__main__":
    main()
