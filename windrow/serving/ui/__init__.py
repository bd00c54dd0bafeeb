"""The pages for people, made here as HTML: nothing from elsewhere, and no script at all."""
