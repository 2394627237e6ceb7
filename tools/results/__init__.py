"""The book of results: the files of figures, and the chapters that are made of them."""
