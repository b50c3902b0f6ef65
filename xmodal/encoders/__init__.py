"""Encoders: decoders of media, towers that turn them into raw vectors, and the folders that towers live in.

`load.load_tower` opens a tower folder, `resolve.resolve_encoder` fills one from open_clip or a local file, and
`openclip.save_open_clip_towers` writes one from a trained model. Nothing is imported here, so that a program depends on
the encoders that it uses and on no other.
"""
