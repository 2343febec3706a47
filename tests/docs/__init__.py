"""What the documents say is true: their commands run, their snippets load, their links lead on."""
