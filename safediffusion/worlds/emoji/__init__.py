"""The embedded world `emoji`: scenes of emoji sprites, a pipeline that draws them, an encoder and a judge."""
