package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// envName gives the environment variable that stands for a flag.
func envName(flag string) string {
	return "TRIMARAN_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// loadSettings fills the command's flags that the command line does not give
// from the environment and then from the config file. Afterwards the flags are
// the only place where settings are, and Changed tells the given from the
// default. A key of the file that is no flag of the command is refused: a typo
// in a file would otherwise go unnoticed for ever.
func loadSettings(cmd *cobra.Command, env func(string) (string, bool)) error {
	// `topic create` has --config for the topic's own settings, as Kafka's tools do.
	file := cmd.Flags().Lookup("config-file")
	if file == nil {
		file = cmd.Flags().Lookup("config")
	}
	if file == nil {
		return nil
	}
	settable := func(f *pflag.Flag) bool {
		return f != file && f.Name != "help" && f.Name != "config" && f.Name != "config-file"
	}
	path := file.Value.String()
	if given, ok := env("TRIMARAN_CONFIG"); ok && !file.Changed {
		path = given
	}
	v := viper.New()
	if path != "" {
		v.SetConfigFile(path)
		if err := v.ReadInConfig(); err != nil {
			return fmt.Errorf("config file %s: %w", path, err)
		}
		if err := knownKeys(cmd, path, v.AllKeys(), settable); err != nil {
			return err
		}
	}
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || !settable(f) {
			return
		}
		if value, ok := env(envName(f.Name)); ok && value != "" {
			if err := cmd.Flags().Set(f.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("environment variable %s: %w", envName(f.Name), err))
			}
			return
		}
		if !v.InConfig(f.Name) {
			return
		}
		if err := setFromFile(cmd.Flags(), f, v); err != nil {
			errs = append(errs, fmt.Errorf("config file %s: %s: %w", path, f.Name, err))
		}
	})
	return errors.Join(errs...)
}

func setFromFile(flags *pflag.FlagSet, f *pflag.Flag, v *viper.Viper) error {
	list, isList := v.Get(f.Name).([]any)
	if !isList {
		// As viper writes it: JSON has one kind of number, and fmt writes large ones with an
		// exponent.
		return flags.Set(f.Name, v.GetString(f.Name))
	}
	many, ok := f.Value.(pflag.SliceValue)
	if !ok {
		return errors.New("takes one value, not a list")
	}
	f.Changed = true
	return many.Replace(v.GetStringSlice(f.Name)[:len(list)])
}

func knownKeys(cmd *cobra.Command, path string, keys []string, settable func(*pflag.Flag) bool) error {
	var known, unknown []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if settable(f) {
			known = append(known, f.Name)
		}
	})
	for _, key := range keys {
		if !slices.Contains(known, key) {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	return fmt.Errorf("config file %s: unknown key %s; '%s' knows: %s",
		path, strings.Join(unknown, ", "), cmd.CommandPath(), strings.Join(known, ", "))
}
