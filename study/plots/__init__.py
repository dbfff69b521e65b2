"""The figures of a study's report, one kind to a file. Drawn from study.analysis and study.collected; nothing is computed here."""
