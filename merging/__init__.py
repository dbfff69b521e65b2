"""Several fine-tuned encoders into one: by arithmetic on their weights, read and written tensor by tensor."""
