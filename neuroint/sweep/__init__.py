"""Search, confirm and score the arms of a question with Ray Tune and Optuna."""
