"""The faces of an IJB protocol, cut out by their landmarks, in batches that a network reads."""

from collections.abc import Sequence
from typing import Any

import PIL.Image
import torch

from .alignment import align_faces, face_template
from .batched import BatchedImages
from .decoding import decode_in_set
from .ijb import IjbProtocol
from .pixels import prepare_images, working_size
from .transforms import Normalizer


class IjbImages(BatchedImages):
    """
    Images of an [`IjbProtocol`] in its order, aligned; a batch is `{"pixel_values": float32 (batch_size, num_channels,
    height, width)}`.

    Args:
        protocol ([`IjbProtocol`]): Its `loose_crop/` has the images, its landmarks say where the face is.
        processor (`Any`): An image processor of the size that faces are aligned to, a square or 112x96.

    Raises:
        FileNotFoundError: There is no folder `loose_crop`.
        ValueError: The processor leaves images at different sizes, or faces are not aligned to its size.
        CorruptImageError: When an image is read that cannot be decoded; names protocol, image and file.
    """

    def __init__(self, protocol: IjbProtocol, processor: Any) -> None:
        self._size = working_size(processor)
        face_template(self._size)  # Refuses sizes without a template before the first batch.
        self._folder = protocol.folder / "loose_crop"
        if not self._folder.is_dir():
            raise FileNotFoundError(
                f"{self._folder} does not exist; it has the images of {protocol.name}, which only stored features can "
                "do without"
            )
        self._protocol, self._processor = protocol, processor
        self._normalize = Normalizer(processor)

    def __len__(self) -> int:
        return self._protocol.num_images

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """See [`BatchedImages`]."""
        rows = [int(index) for index in indices]
        paths = [str(self._folder / self._protocol.image_names[row]) for row in rows]
        images = [
            decode_in_set({"bytes": None, "path": path}, self._protocol.name, row)
            for path, row in zip(paths, rows, strict=True)
        ]
        faces = align_faces(images, self._protocol.landmarks[rows], self._size)
        images = list(faces)
        if len(self._processor.image_mean) == 1:
            # The processor makes one channel of images, but not of tensors.
            images = [PIL.Image.fromarray(face.permute(1, 2, 0).numpy()) for face in faces]
        pixels = prepare_images(images, self._processor, do_resize=False, do_center_crop=False)
        return {"pixel_values": self._normalize(pixels)}
