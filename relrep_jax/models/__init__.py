"""Encoders, decoders and heads, with the convolution that they are made of."""
