"""What is learnt from many finished cells: lines through outcomes, agreement of rankings, predictions, figures."""
