"""What every package and script may use: user errors, safe files, the shell face. Imports nothing of the project and no torch."""
