"""What a retrieval task is: queries, a gallery, and which items of the gallery are relevant to which query."""
