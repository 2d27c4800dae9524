"""What all data sets of images have in common: they make whole batches, and an item is a batch of one."""

from collections.abc import Sequence

import torch


class BatchedImages(torch.utils.data.Dataset):
    """Base of data sets whose `__getitems__` makes a batch, which PyTorch's data loader calls where it exists."""

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} does not implement __len__")

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside of 0 to {len(self) - 1}")
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """
        A whole batch; pair it with [`collate`].

        Args:
            indices (`Sequence[int]`): Which images.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement __getitems__")
