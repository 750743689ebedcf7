"""One module for each verb or family of verbs; `app` lists them."""
