"""Images that arrive in a folder, each judged once: a journal, a folder that is looked at, and the loop of both."""
