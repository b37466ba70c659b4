#!/usr/bin/perl
# Every verb explains itself, refuses wrong usage with 64 and wrong settings with 78, and stands in its manual.
use strict;
use warnings;
use HyperTest;
use Test::More;

my %verbs = (
	hyper => [ 'server run', 'check', 'call', 'ping', 'sd submit-records', 'sd records', 'sd entries', 'sd sign' ],
	proxy => [ 'run public', 'check' ],
	sd => [ 'run', 'check' ],
);
my %variable = (hyper => 'HYPER_SETTINGS', proxy => 'PROXY_SETTINGS', sd => 'SD_SETTINGS');
my %section = (hyper => 1, proxy => 8, sd => 8);

for my $program (sort keys %verbs) {
	my ($code, $out, $err) = run_program([ program($program), '--help' ]);
	is($code, 0, "$program --help exits 0");
	for my $verb (@{ $verbs{$program} }) {
		like($out, qr/\Q$program $verb\E/, "$program --help lists $verb");
		like(read_file(source() . "/man/$program.$section{$program}"), qr/^\.(?:It )?Cm \Q$verb\E/m, "$program($section{$program}) lists $verb");
		my ($c, $o) = run_program([ program($program), split(/ /, $verb), '--help' ]);
		is($c, 0, "$program $verb --help exits 0");
		like($o, qr/^Usage: $program \Q$verb\E/i, "$program $verb --help shows its usage");
		($c, $o) = run_program([ program($program), split(/ /, $verb), '--version' ]);
		is($c, 0, "$program $verb --version exits 0");
		like($o, qr/\d+\.\d+\.\d+/, "$program $verb --version shows a version");
		($c, $o, $err) = run_program([ program($program), split(/ /, $verb), '--no-such-option' ]);
		is($c, 64, "$program $verb --no-such-option exits 64");
		like($err, qr/no-such-option/, 'and names it');
	}
	($code, $out, $err) = run_program([ program($program), 'dance' ]);
	is($code, 64, "$program dance exits 64");
	like($err, qr/dance/, 'and names what is no verb');
	($code, $out, $err) = run_program([ program($program) ]);
	is($code, 64, "$program alone exits 64");
	like($err, qr/Verbs:/, 'and lists the verbs');
	# No settings at all, and settings that are not there.
	delete local $ENV{ $variable{$program} };
	($code, $out, $err) = run_program([ program($program), 'check' ]);
	is($code, 78, "$program check without $variable{$program} exits 78");
	like($err, qr/$variable{$program}/, 'and names the variable');
	($code, $out, $err) = run_program([ program($program), 'check' ], env => { $variable{$program} => tmp() . '/nowhere' });
	is($code, 78, "$program check with a missing folder exits 78");
	like($err, qr{/nowhere}, 'and names the folder');
}
hyper_done();
