"""Fit the models that a challenger must beat: simple counts, trees and rerankers of the user's history."""
