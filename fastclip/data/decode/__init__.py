"""From encoded bytes to uint8 pixels: headers judged first, JPEG by libjpeg-turbo, else Pillow."""
