"""What an encoder is: the zoo, the facade, weight conversion, tunings, checkpoints and the tiny model."""
