"""A study's report: what it says (sections), as blocks (document), and how blocks are written (html, markdown)."""
